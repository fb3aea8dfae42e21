"""Processors of a device: how fast each is, and what of a model it is given to hold."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from simulator.spec import (
    Duration,
    LogSd,
    PositiveBytes,
    PositiveRate,
    SharedSpec,
    Spec,
    ToldFlops,
    ToldRate,
    ToldSpec,
)
from simulator.units import FLOPS, RATE

__all__ = ["Label", "Name", "NoiseSpec", "OffloadSpec", "ProcessorSpec", "SpeedSpec"]

Label = Literal["measured", "calibrated", "assumed"]
# no blank, slash or arrow: names are parts of stream names, of `source -> sink`, of paths and of folders
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=60)]


class NoiseSpec(Spec):
    """Noise of a stage: its time is multiplied by `exp(x)`, x a first-order autoregression.

    And its host pauses, by a Poisson process while the stage works, exponentially long: the stolen time of a
    virtual machine, or turns of another program.
    """

    sigma: LogSd = Field(description="standard deviation of the logarithm of one token's stage time")
    correlation: float = Field(
        default=0.0, ge=-0.99, le=0.99, description="of one token's noise with the next one's"
    )
    run_sigma: LogSd = Field(default=0.0, description="standard deviation of the logarithm from run to run")
    session_sigma: LogSd = Field(
        default=0.0, description="the same from one start of the cluster to the next"
    )
    pauses_per_s: float = Field(
        default=0.0, ge=0, le=1000, description="pauses of the host in a second of work"
    )
    pause: Duration = Field(default=0.0, description="mean length of such a pause")

    @property
    def is_silent(self) -> bool:
        """Whether nothing is drawn for it."""
        drawn = (self.sigma, self.run_sigma, self.session_sigma, self.pauses_per_s * self.pause)
        return not any(drawn)


class SpeedSpec(ToldSpec):
    """What a device really does with a model, after all inefficiency.

    What is said is not exact: a spread that is not given is that of the catalogue's figure for the kind of
    device, or of a figure that somebody says (told.yaml); small with `label: measured`.
    """

    PLUS_MINUS: ClassVar = {
        "decode_bandwidth": ("decode_spread", RATE),
        "prefill_flops": ("prefill_spread", FLOPS),
    }

    decode_bandwidth: ToldRate = Field(description="weight and KV bytes read per second while decoding")
    prefill_flops: ToldFlops = Field(
        description="floating point operations per second while reading a prompt"
    )
    layer_overhead: Duration = Field(
        default=0.0, description="fixed time per layer and token (kernel launches)"
    )
    latent_layer_overhead: Duration = Field(
        default=0.0, description="further fixed time of a layer with latent attention (MLA)"
    )
    stage_overhead: Duration = Field(default=0.0, description="fixed time per stage and token on this device")
    serving_overhead: Duration = Field(
        default=0.0,
        description="fixed time per token of a device that a client asks over the network, beside its layers",
    )
    context_cost: float = Field(
        default=1.0, ge=0, le=1e4, description="cost of reading KV bytes, in weight bytes"
    )
    mixture_cost: float = Field(
        default=1.0, ge=0.1, le=100, description="cost of expert weights, in dense weight bytes"
    )
    mixture_layer_cost: float = Field(
        default=1.0, ge=0.1, le=100, description="layer_overhead of a mixture, in those of a dense layer"
    )
    expert_evenness: float | None = Field(
        default=None,
        ge=0.01,
        le=1000,
        description="how evenly tokens of a batch choose experts (shape of a beta law); none: all alike",
    )
    prefill_mixture_cost: float = Field(
        default=1.0, ge=0.1, le=100, description="the same for the flops of a prompt"
    )
    prefill_expert_fill: float = Field(
        default=0.0,
        ge=0,
        le=1e4,
        description="tokens of a prompt's chunk that an expert computes for nothing (its last tile)",
    )
    prefill_latent_cost: float = Field(
        default=1.0, ge=0.1, le=100, description="of a prompt's flops in layers with latent attention (MLA)"
    )
    prefill_latent_spread: LogSd = Field(
        default=0.0, description="standard deviation of the logarithm of that, beside prefill_spread"
    )
    prompt_attention_cost: float = Field(
        default=1.0,
        ge=0.01,
        le=1000,
        description="of a prompt's attention, in flops of matrix products: what makes long prompts slow",
    )
    batch_cost: float = Field(
        default=0.0, ge=0, le=10, description="of each further chat in a batch, in first chats"
    )
    decode_spread: LogSd | None = Field(
        default=None, description="standard deviation of the logarithm: how sure this is"
    )
    prefill_spread: LogSd | None = Field(default=None, description="the same for the prompt")
    decode_shared: tuple[SharedSpec, ...] = Field(default=(), description="parts of it that others have too")
    prefill_shared: tuple[SharedSpec, ...] = Field(default=(), description="parts of prefill_spread")
    label: Label = "assumed"


class ProcessorSpec(Spec):
    """One processor of a device that holds several: a graphics card, or the processor
    that the cards are plugged into. What is missing comes from the catalogue's entry for `kind`.
    """

    kind: str | None = Field(
        default=None, description="a device of the catalogue; of a card only the card counts"
    )
    memory: PositiveBytes | None = Field(default=None, description="installed: of the card, or RAM")
    usable_memory: PositiveBytes | None = Field(default=None, description="what an engine may fill")
    platform: str | None = Field(default=None, description="nvidia-cuda, amd-gpu, x86-cpu, ...")
    speed: SpeedSpec | None = None
    bus: str | None = Field(
        default=None, description="of a card: pcie3_x16, pcie4_x4, ...; default pcie4_x16"
    )
    bus_rate: PositiveRate | None = Field(default=None, description="what really crosses it, each way")
    bus_delay: Duration | None = Field(
        default=None, description="to hand a step over, or to take it, beyond the bytes"
    )


CardShare = Annotated[float, Field(ge=0, le=1e6)]


class OffloadSpec(Spec):
    """What of a model the cards of a device hold, as llama.cpp is told it."""

    gpu_layers: int | None = Field(
        default=None,
        ge=0,
        le=1001,
        description="-ngl: the last so many layers; the output head counts as one, the first to go",
    )
    tensor_split: tuple[CardShare, ...] | None = Field(
        default=None, min_length=1, description="--tensor-split: shares of the cards, in their order"
    )
    cpu_moe_layers: int | None = Field(
        default=None, ge=0, le=1000, description="--n-cpu-moe: experts of the first so many layers in RAM"
    )

    @model_validator(mode="after")
    def _somebody_has_a_share(self) -> OffloadSpec:
        if self.tensor_split is not None and not any(self.tensor_split):
            raise ValueError("tensor_split gives no card a share; give one at least more than 0")
        return self
