"""From a configuration, a model and data to result tables, part by part.

What `seqjax infer` writes to files and what the Python API returns are these tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import polars as pl

from seqjax.artifacts.card import ModelCard
from seqjax.config.infer import InferConfig
from seqjax.console import progress
from seqjax.inference.engine import Engine
from seqjax.inference.forecast import Forecast, embed, forecast
from seqjax.inference.sample import Reader, SamplingRule
from seqjax.inference.sources import Source
from seqjax.inference.tables import (
    embedding_table,
    frequency_table,
    prediction_table,
    probability_table,
    quantile_table,
)


class Output(NamedTuple):
    """Which table."""

    kind: Literal["predictions", "probabilities", "embeddings", "quantiles", "frequencies"]
    target: str = ""
    """The target whose probabilities or frequencies they are."""


Outputs = Mapping[Output, pl.DataFrame]


def outputs(config: InferConfig, engine: Engine, source: Source) -> Iterator[Outputs]:
    """The results for each part of the data; every part holds the same tables.

    Args:
      config: What to predict; it does not contradict the model.
      engine: The model.
      source: The data.
    """
    return (_embeddings if config.model_type == "embedding" else _forecasts)(config, engine, source)


def _embeddings(config: InferConfig, engine: Engine, source: Source) -> Iterator[Outputs]:
    with progress("Inference", source.total, "windows") as bar:
        for windows in source.parts():
            embeddings = embed(
                engine,
                windows,
                batch_size=config.inference_batch_size,
                latest=config.forecast_from == "latest",
                bar=bar,
            )
            yield {Output("embeddings"): embedding_table(embeddings)}


def _forecasts(config: InferConfig, engine: Engine, source: Source) -> Iterator[Outputs]:
    """The predictions, and the probabilities of each target that are asked for."""
    card = engine.card
    kinds = card.column_schema.targets
    targets = config.target_columns or list(kinds)
    shown = [name for name in targets if config.output_probabilities and kinds[name] == "categorical"]
    # All targets are read, whichever are asked for: they may have to be fed back, and draws stay the same.
    read = Reader(
        kinds,
        sampled=config.sample_from_distribution_columns or (),
        seed=config.seed,
        rule=SamplingRule(config.temperature, config.top_k, config.top_p),
        keep_log_probs=shown,
    )
    steps = (config.autoregression_extra_steps or 0) if config.autoregression else 0
    # Autoregression has a bar of its own, and a terminal shows one at a time.
    with nullcontext() if config.autoregression else progress("Inference", source.total, "windows") as bar:
        for windows in source.parts():
            result = forecast(
                engine,
                windows,
                read,
                batch_size=config.inference_batch_size,
                extra_steps=steps,
                samples=config.autoregression_samples,
                cache=config.generation_cache,
                latest=config.forecast_from == "latest",
                bar=bar,
            )
            yield {
                Output("predictions"): prediction_table(result, card, targets, map_to_id=config.map_to_id),
                **{Output("probabilities", name): probability_table(result, card, name) for name in shown},
                **_summaries(result, card, targets),
            }


def _summaries(result: Forecast, card: ModelCard, targets: Sequence[str]) -> Outputs:
    """What samples say together, where there are any."""
    if result.sample is None:
        return {}
    kinds = card.column_schema.targets
    real = [name for name in targets if kinds[name] == "real"]
    return {
        **({Output("quantiles"): quantile_table(result, card, real)} if real else {}),
        **{
            Output("frequencies", name): frequency_table(result, card, name)
            for name in targets
            if kinds[name] == "categorical"
        },
    }
