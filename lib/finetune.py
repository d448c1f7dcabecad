"""Fine-tuning: ``transformers.Trainer`` on a Task, resumable. The only module that imports Trainer."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput

from lib import disk, encoders, surroundings, tasks
from lib.study import params, runs
from lib.study.variants import Variant


@dataclass(frozen=True)
class Finetuned:
    """A fine-tuned encoder on disk and how its training went.

    ``curve`` : one row per evaluation (step, epoch, train_loss, dev_loss, dev scores). ``predictions`` : the test
    examples in their order (gold, predicted). ``meta`` : scores, ``majority`` (the best constant answer on dev and
    test), sizes, seconds.
    """

    folder: Path
    curve: pd.DataFrame
    predictions: pd.DataFrame
    meta: dict[str, Any]


def ensure(run: runs.Run) -> Finetuned:
    """The fine-tuned encoder of a run, trained now if it is missing or of other parameters.

    A killed training goes on from its last checkpoint.

    Raises
    ------
    ParameterError : the variant names no task, or the device is not the first GPU. OSError : too little disk for the
    checkpoints.
    """
    if not run.variant.task:
        raise params.ParameterError(f"the variant '{run.variant.name}' is not fine-tuned: there is nothing to train")
    checkpoints = run.model.with_name(f".checkpoints-{run.model.name}")
    folder = runs.ensure(run, "finetune", lambda folder: _train(run, folder, checkpoints))
    disk.remove(checkpoints)
    tables = (pd.read_csv(folder / name) for name in ("curve.csv", "predictions.csv"))
    return Finetuned(folder, *tables, runs.manifest(run, "finetune"))


class _Bar(ProgressCallback):
    """Trainer's bar without its lines of numbers: the learning curve shows them, to the ``last`` update, at which the
    training stops."""

    last = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step >= self.last:
            control.should_log = control.should_evaluate = control.should_training_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, *_: Any, logs: dict | None = None, **__: Any
    ) -> None:
        _check_finite({k: v for k, v in (logs or {}).items() if isinstance(v, float)}, state.global_step)


class _Saver(TrainerCallback):
    """A checkpoint every ten minutes, beside those at the evaluations: of a long training little is lost."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if time.monotonic() - self.saved > SAVE_EVERY:
            control.should_save = control.should_log = True  # the losses since the last log are not in a checkpoint

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.saved = time.monotonic()


SAVE_EVERY = 600.0
"""Seconds of training after which it is saved."""


class Diverged(params.ParameterError):
    """A training whose loss or weights are not finite numbers: its model is not kept."""


def _check_finite(values: dict[str, float], step: int) -> None:
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    for name, value in bad.items():
        raise Diverged(
            f"the training diverged: {name} is {value}, which is not a finite number, at update {step}. Lower "
            "finetune.learning_rate (or lengthen finetune.warmup); nothing of this training is kept"
        )


class _ByLength(LengthGroupedSampler):
    """Examples of like length together, in an order of the seed and the epoch alone: a resumed epoch goes on in it."""

    seed = 0

    def set_epoch(self, epoch: int) -> None:  # which Trainer calls before each epoch
        self.generator = torch.Generator().manual_seed(self.seed + epoch)


class _Trainer(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> _ByLength:
        sampler = _ByLength(self.args.train_batch_size, lengths=self.train_dataset["length"][:])
        sampler.seed = self.args.seed
        return sampler


def majority_score(task: tasks.Task, gold: np.ndarray) -> float:
    """The main score of the best constant answer: the share of the most frequent label; 0 where the score is a
    correlation."""
    return pd.Series(gold).value_counts(normalize=True).max() if task.metric == "accuracy" else 0.0


def _train(run: runs.Run, folder: Path, checkpoints: Path) -> dict[str, Any]:
    """Train and test a model and save it in ``folder``; returns the facts. A training that diverges leaves nothing."""
    study, variant, seed = run.study, run.variant, run.variant.seed
    assert seed is not None and variant.task
    task, data = tasks.task(study, variant.task), tasks.load(study, variant)
    where, tok = device(study), encoders.tokenizer(study)
    surroundings.clean()  # once more: Trainer and accelerate read theirs when they are made
    set_seed(seed)
    model = _untrained(study, variant, task)
    disk.need_space(
        run.model.parent, 4.0 * model.num_parameters() * (2 * 3 + 1)
    )  # two checkpoints of weights and Adam's moments
    encoded = _encoded(data, tok, min(study.finetune.max_subwords, encoders.max_length(study, tok, model)))
    by_length = {split: np.argsort(encoded[split]["length"][:], kind="stable") for split in ("dev", "test")}
    steps = tasks.updates(study, variant, len(data["train"]))
    bar = _Bar()
    bar.last = variant.checkpoint or steps
    trainer = _Trainer(
        model=model, args=_arguments(study.training(variant), checkpoints, steps, seed, where, study.precision),
        train_dataset=encoded["train"], eval_dataset=encoded["dev"].select(by_length["dev"]),
        data_collator=DataCollatorWithPadding(tok), compute_metrics=tasks.scores(task), callbacks=[bar, _Saver()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
        output = trainer.predict(encoded["test"].select(by_length["test"]))  # little padding
        largest = {name: float(weight.detach().abs().max()) for name, weight in model.named_parameters()}
        _check_finite(largest | {"a prediction": float(np.abs(output.predictions).max())}, bar.last)
    except Diverged as error:
        disk.remove(checkpoints)
        raise Diverged(f"{study.name}, {variant.name}: {error}") from None
    trainer.save_model(str(folder))
    tok.save_pretrained(folder)
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and not needed
    _curve(trainer.state.log_history).to_csv(folder / "curve.csv", index=False)
    _predictions(output, by_length["test"]).to_csv(folder / "predictions.csv", index=False)
    return {
        "task": variant.task, "seed": seed, "metric": task.metric, "labels": task.labels,
        "scores": {k: output.metrics[f"test_{k}"] for k in tasks.SCORES if f"test_{k}" in output.metrics},
        "majority": {split: majority_score(task, np.array(data[split]["label"])) for split in ("dev", "test")},
        "examples": {k: len(v) for k, v in data.items()}, "updates": bar.last, "parameters": model.num_parameters(),
    }  # fmt: skip


def device(study: params.Study) -> torch.device:
    """The device of a study's trainings. Raises ParameterError for another than the first GPU, and as
    ``encoders.device``."""
    found = encoders.device(study)
    if found.index:
        raise params.ParameterError(
            f"device: fine-tuning takes the first GPU that it sees: with {found}, set "
            f"CUDA_VISIBLE_DEVICES={found.index} and device: cuda"
        )
    return found


def _untrained(study: params.Study, variant: Variant, task: tasks.Task) -> PreTrainedModel:
    """The released encoder under a new head, without the layers that the variant lacks."""
    model = encoders.classifier(study, task.labels)
    return encoders.without_layers(model, *variant.dropped) if variant.dropped else model


def _predictions(output: PredictionOutput, numbers: np.ndarray) -> pd.DataFrame:
    """Gold and predicted class number, or score, in the order of the test examples. ``numbers`` : [examples] of which
    the rows of the output are."""
    scores = output.predictions
    guess = scores.argmax(-1) if scores.shape[-1] > 1 else scores.reshape(-1)
    return pd.DataFrame({"gold": output.label_ids, "predicted": guess}, numbers).sort_index()


def _encoded(data: datasets.DatasetDict, tok: PreTrainedTokenizerBase, longest: int) -> datasets.DatasetDict:
    """The examples as sub-words, at most ``longest``, with their ``length``."""
    texts = [name for name in ("text", "text_pair") if name in data["train"].column_names]
    options = {"truncation": True, "max_length": longest, "return_length": True}
    return data.map(tok, batched=True, input_columns=texts, remove_columns=texts, fn_kwargs=options)


def _arguments(
    settings: params.FinetuneSettings, checkpoints: Path, steps: int, seed: int, device: torch.device, precision: str
) -> TrainingArguments:
    every = math.ceil(steps / settings.evaluations)
    arguments = TrainingArguments(
        output_dir=str(checkpoints), max_steps=steps, learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup * steps), weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=64, lr_scheduler_type="linear", max_grad_norm=1.0, seed=seed,
        bf16=precision == "bfloat16",
        optim="adamw_torch_fused",  # the other takes roots whose last digit depends on the processor
        eval_strategy="steps", eval_steps=every, logging_strategy="steps", logging_steps=every,
        save_strategy="steps", save_steps=every, save_total_limit=2, report_to="none", disable_tqdm=True,
        use_cpu=device.type == "cpu", dataloader_pin_memory=device.type == "cuda",
        logging_nan_inf_filter=False,  # which would hide a loss that is not a number
    )  # fmt: skip
    arguments._n_gpu = min(arguments.n_gpu, 1)  # of several GPUs Trainer would take all, and so another batch size
    return arguments


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end (the trainer's state comes last), if any."""
    done = [p for p in folder.glob("checkpoint-*") if disk.read_json(p / "trainer_state.json") is not None]
    return str(max(done, key=lambda p: int(p.name.rpartition("-")[2]))) if done else None


def _curve(history: list[dict[str, float]]) -> pd.DataFrame:
    """The Trainer's log as one row per evaluation, its scores in the order of ``tasks.SCORES`` (the log of a resumed
    training has them in another). The training loss is the mean of all updates since the evaluation before."""
    log = (
        pd.DataFrame(history)
        .drop(columns="train_loss", errors="ignore")  # the mean of all updates
        .rename(columns=lambda name: "train_loss" if name == "loss" else name.replace("eval_", "dev_"))
    )
    rows = log.groupby("step", as_index=False).first()
    updates = rows["step"].diff().fillna(rows["step"])  # that the loss is the mean of
    rows["until"] = rows["step"].where(rows["dev_loss"].notna()).bfill()
    last = rows.groupby("until")["train_loss"].transform("last")
    rest = (updates * (rows["train_loss"] - last)).groupby(rows["until"]).transform("sum")
    rows["train_loss"] = last + rest / updates.groupby(rows["until"]).transform("sum")
    rows = rows.dropna(subset="dev_loss").round({"epoch": 4})
    columns = ["step", "epoch", "train_loss", "dev_loss", *(f"dev_{score}" for score in tasks.SCORES)]
    return rows[[c for c in columns if c in rows]].reset_index(drop=True)
