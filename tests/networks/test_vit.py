import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.networks import vit

IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


def tiny(**fields):
    fields = {"depth": 2, "heads": 2, "width": 8, "patch": 4} | fields
    return vit.ViT(**fields)


def init(net):
    return net.init(jax.random.key(0), IMAGES)["params"]


def test_a_small_grid_has_the_positions_of_a_large_one_at_the_same_places():
    channels = 32
    large, small = (
        vit.positions(side, side, channels).reshape(side, side, channels)
        for side in (14, 6)
    )
    # DINO's interpolation of positions to the grid of a local crop, in which coarse
    # waves are nearly linear between patches; the finest have a wavelength of 6 patches
    size = (6, 6, channels)
    interpolated = jax.image.resize(large, size, "cubic", antialias=False)
    coarse = (np.arange(channels) % (channels // 4)) >= 2
    inner = np.s_[1:-1, 1:-1]  # the interpolation extrapolates at the border
    difference = np.abs(np.asarray(small - interpolated))[inner][..., coarse]
    assert difference.max() < 2e-3
    whole = np.asarray(vit.positions(14, 14, channels)).reshape(large.shape)
    np.testing.assert_allclose(whole[3, 5, 0], np.sin(3), rtol=1e-6)
    np.testing.assert_allclose(whole[3, 5, channels // 2], np.sin(5), rtol=1e-6)


def test_a_grid_may_have_other_numbers_of_rows_and_columns():
    grid = np.asarray(vit.positions(2, 7, 16)).reshape(2, 7, 16)
    places = (np.arange(2) + 0.5) * 7 - 0.5
    np.testing.assert_allclose(grid[:, 3, 0], np.sin(places), rtol=1e-5)
    assert np.ptp(grid[..., :8], axis=1).max() == 0  # rows do not depend on columns
    assert np.ptp(grid[..., 8:], axis=0).max() == 0


def test_patches_are_squares_of_pixels_in_rows():
    images = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    patches = vit.cut_patches(images, 2)
    assert patches.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(patches[1, 1, 2], images[1, 2:4, 4:6].ravel())


@pytest.mark.slow
def test_crops_of_several_sizes_are_encoded_by_the_same_parameters():
    params = init(tiny())
    features = [
        tiny().apply({"params": params}, IMAGES[:, :side, :side]) for side in (16, 8)
    ]
    assert [x.shape for x in features] == [(2, 16)] * 2
    assert np.abs(features[0] - features[1]).max() > 1e-2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 3}, "config.encoder.patch=3 must divide the sides of all crops"),
        ({"width": 3}, "must be a multiple of 4, for the positions; use e.g. width=64"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: init(tiny(**fields)))


@pytest.mark.slow
def test_weights_are_initialized_as_in_moco_v3():
    params = init(tiny(width=64))
    channels = 128
    attention, mlp = params["block0"]["attention"], params["block0"]
    limits = {
        "patches": (params["patches"]["kernel"], 3 * 4**2 + channels),
        "query": (attention["query"]["kernel"], 2 * channels),
        "value": (attention["value"]["kernel"], 2 * channels),
        "out": (attention["out"]["kernel"], 2 * channels),
        "fc1": (mlp["fc1"]["kernel"], 5 * channels),
        "fc2": (mlp["fc2"]["kernel"], 5 * channels),
    }
    for name, (kernel, fan_in_and_out) in limits.items():
        bound = np.sqrt(6 / fan_in_and_out)
        assert 0.98 * bound < np.abs(kernel).max() <= bound, name
        np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=0.03)
    for path, leaf in jax.tree.leaves_with_path(params):
        if path[-1].key == "bias":
            np.testing.assert_array_equal(leaf, 0)
    assert 0 < np.abs(params["token"]).max() < 1e-5


def assert_close(x, y):
    np.testing.assert_allclose(x, y, atol=1e-5 * max(1.0, float(np.abs(y).max())))


def gradient_of(net, params):
    def loss(params):
        return jnp.sum(jnp.sin(net.apply({"params": params}, IMAGES)))

    return jax.jit(jax.grad(loss))(params)


def test_frozen_patches_have_no_gradient_and_all_other_parameters_have_one():
    params = init(tiny())
    frozen = gradient_of(tiny(frozen_patches=True), params)
    free = gradient_of(tiny(), params)
    for name, leaf in frozen.pop("patches").items():
        np.testing.assert_array_equal(leaf, 0)
        assert np.abs(free["patches"][name]).max() > 1e-3
    del free["patches"]
    jax.tree.map(assert_close, frozen, free)
    assert np.abs(frozen["block0"]["fc1"]["kernel"]).max() > 1e-3


def test_bfloat16_keeps_parameters_and_features_in_float32():
    net = tiny(dtype=jnp.bfloat16)
    params = init(net)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    features, exact = (n.apply({"params": params}, IMAGES) for n in (net, tiny()))
    assert features.dtype == jnp.float32
    assert 0 < np.abs(features - exact).max() < 0.1
    # the softmax and the statistics of layer norms are float32, the MLP is not
    program = str(jax.make_jaxpr(lambda: net.apply({"params": params}, IMAGES))())
    for name, kind in {"exp": ":f32[", "rsqrt": ":f32[", "erfc": ":bf16["}.items():
        found = [line for line in program.splitlines() if f"= {name} " in line]
        assert found, name
        assert all(kind in line.split("=")[0] for line in found), found


@pytest.mark.slow
def test_remat_keeps_less_for_the_gradient_and_changes_none():
    plain, repeating = tiny(), tiny(remat=True)
    params = init(plain)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, init(repeating))
    a, b = (gradient_of(net, params) for net in (plain, repeating))
    jax.tree.map(assert_close, a, b)

    def kept(net):
        apply = lambda params: net.apply({"params": params}, IMAGES)  # noqa: E731
        _, pull = jax.eval_shape(lambda: jax.vjp(apply, params))
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert kept(repeating) < 0.7 * kept(plain)
