import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.networks.resnet import BasicBlock, Bottleneck, ResNet

IMAGES = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 3))


def tiny(block=BasicBlock, **options):
    return ResNet(stage_sizes=(1, 1), block=block, width=4, stem="cifar", **options)


def init(net):
    """Returns the network's variables as NumPy arrays."""
    make = jax.jit(lambda: net.init(jax.random.key(0), IMAGES, train=True))
    return dict(jax.device_get(make()))


def test_training_changes_nothing_but_the_running_statistics():
    net = tiny()
    before = init(net)
    run = jax.jit(lambda v: net.apply(v, IMAGES, train=True, mutable=True)[1])
    after = jax.device_get(run(before))
    assert sorted(after) == ["batch_stats", "params"]
    same = jax.tree.map(lambda a, b: (a == b).all(), before, dict(after))
    assert all(jax.tree.leaves(same["params"]))
    assert not any(jax.tree.leaves(same["batch_stats"]))


def test_evaluation_of_an_image_does_not_depend_on_the_other_images():
    net = tiny()
    variables = init(net)
    changed = IMAGES[0].at[1:].multiply(3.0)
    run = jax.jit(lambda images: net.apply(variables, images, train=False))
    together, among_others = run(IMAGES[0]), run(changed)
    np.testing.assert_allclose(together[0], among_others[0], atol=1e-5)
    assert (together[1:] != among_others[1:]).any()


@pytest.mark.parametrize(("block", "size"), [(BasicBlock, 8), (Bottleneck, 32)])
def test_features_are_wider_by_the_blocks_expansion(block, size):
    net = tiny(block)
    out, _ = jax.eval_shape(
        lambda: net.init_with_output(jax.random.key(0), IMAGES, train=True)
    )
    assert out.shape == (2, 3, size)


@pytest.mark.parametrize(("block", "last"), [(BasicBlock, "bn2"), (Bottleneck, "bn3")])
def test_zero_init_residual_zeroes_each_blocks_last_scale_alone(block, last):
    params = init(tiny(block, zero_init_residual=True))["params"]
    scales = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(params)
        if "scale" in str(path)
    }
    zeros = {name for name, leaf in scales.items() if (leaf == 0).all()}
    assert zeros == {f"layer{i}_0/{last}/scale" for i in (1, 2)}
    assert all((leaf == 1).all() for k, leaf in scales.items() if k not in zeros)


def test_bfloat16_network_keeps_parameters_and_features_in_float32():
    net = tiny(dtype=jnp.bfloat16)
    variables = init(net)
    features, exact = jax.jit(
        lambda: [n.apply(variables, IMAGES[0], train=False) for n in (net, tiny())]
    )()
    assert features.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(features, exact, atol=0.1 * float(exact.max()))


def test_remat_keeps_less_for_the_gradient_and_changes_none():
    def pull_back(net, params, stats):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            features, after = net.apply(
                variables, IMAGES, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(features)), after

        _, gradient, after = jax.vjp(loss, params, has_aux=True)
        return gradient, after

    def gradient_of(net):
        def gradient(params, stats):
            pull, after = pull_back(net, params, stats)
            return pull(1.0), after

        return jax.jit(gradient)(*variables)

    def kept(net):
        pull, _ = jax.eval_shape(lambda *v: pull_back(net, *v), *variables)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    plain, repeating = tiny(), tiny(remat=True)
    variables = tuple(init(plain)[name] for name in ("params", "batch_stats"))
    a, b = gradient_of(plain), gradient_of(repeating)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)
    assert kept(repeating) < 0.7 * kept(plain)
