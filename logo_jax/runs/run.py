"""What a run has written: its metrics, its encoder and its report."""

import dataclasses
from pathlib import Path
from typing import Any

from logo_jax.data.load import ExperimentData
from logo_jax.experiment.image_encoder import ImageEncoder, load_image_encoder
from logo_jax.runs import evaluation
from logo_jax.storage.paths import as_path
from logo_jax.training import workdir
from logo_jax.training.logging.metric_writer import METRICS_FILE, Row, read_rows
from logo_jax.training.preemption import InterruptHandler
from logo_jax.visualization import run_report


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run that `pretrain` or `python -m logo_jax.main` has trained.

    Everything is read from the run's folder when it is asked for. So a run that was
    resumed or is being trained by another process shows its newest state.

    Attributes:
        workdir: the run's folder.
        images: the images of the run, if they are in memory and not in files.
    """

    workdir: Path
    images: ExperimentData | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "workdir", as_path(self.workdir))
        workdir.read_config(self.workdir)  # raises if the folder is not that of a run

    @property
    def config(self) -> dict[str, Any]:
        """The run's config as nested dicts; fields have today's names.

        Raises:
            ValueError: if config.json is damaged.
        """
        return workdir.read_config(self.workdir)

    @property
    def metrics(self) -> list[Row]:
        """The rows of metrics.jsonl, one dict each, in the order of the steps.

        A row of training has "step", "loss" and others; a row of an evaluation has
        "step" and accuracies in percent, such as "knn/k20_t0.07/top1".

        Raises:
            ValueError: if a row is damaged.
        """
        return read_rows(self.workdir / METRICS_FILE)

    @property
    def encoder(self) -> ImageEncoder:
        """The encoder of the newest checkpoint; for a run with one seed.

        `load_encoder` loads the encoder of another step or seed.

        Raises:
            ValueError: if there is no checkpoint, or if the run has several seeds.
        """
        return load_image_encoder(self.workdir)

    def evaluate(self, protocol: str = "knn", **options: Any) -> evaluation.Report:
        """Evaluates the encoder of the newest checkpoint, as `logo_jax.evaluate` does.

        The result is also written to the run's sub-folder `evaluations`.

        Args:
            protocol: knn, linear, finetune, transfer or svm.
            **options: the flags of `python -m logo_jax.evaluate`, such as `dataset`,
                `resize`, `recipe` and `num_epochs`.

        Returns:
            The result: "values", in percent, and everything that defines the protocol.

        Raises:
            FileNotFoundError: if the data set does not exist.
            ValueError: if the protocol or an option is unknown or out of range, or if
                the data are not as required.
            KeyboardInterrupt: if it was interrupted. The same call resumes a linear
                probe.
        """
        with InterruptHandler() as stop:
            report = evaluation.evaluate(
                self.workdir.absolute(),
                protocol,
                stop=stop,
                images=self.images,
                **options,
            )
        if report is None:
            raise KeyboardInterrupt(stop.last_line("repeat the call"))
        return report

    def report(self, out: str | Path | None = None) -> Path:
        """Writes the run's page with its config, machine, curves and figures.

        Args:
            out: folder of the page; if it exists, its files of the same names are
                replaced. None: the run's sub-folder `report`.

        Returns:
            The file of the page, index.html, which loads no other file.

        Raises:
            ValueError: if the run's files are damaged.
            OSError: if the page cannot be written.
        """
        folder = self.workdir / "report" if out is None else as_path(out)
        run_report.write_report([self.workdir], folder, images=self.images)
        return folder / "index.html"
