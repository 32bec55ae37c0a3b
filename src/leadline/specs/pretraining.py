"""How hidden layers are trained one after the other, without labels, before the network is trained as a whole."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.parts.base import Spec

Visible = Literal["bernoulli", "gaussian"]


class PretrainingSpec(Spec):
    """Greedy layer-wise pre-training of sigmoid layers: Hinton et al. 2006; Bengio et al. 2006; Vincent et al. 2008.

    A field that the method or the units do not use must keep its default, and the content hash leaves it out.
    """

    method: Literal["rbm", "denoising-autoencoder"] = Field(default="rbm", description="what each layer is trained as")
    epochs: int = Field(default=10, ge=1, description="number of epochs per layer")
    learning_rate: float = Field(
        default=0.1, gt=0, description="learning rate of every layer whose inputs are in [0, 1]"
    )
    gaussian_learning_rate: float = Field(
        default=0.003,
        gt=0,
        description="learning rate of a first layer with gaussian units, which needs one 10 to 100 times smaller",
    )
    batch_size: int = Field(default=100, ge=1, description="number of images in a step of pre-training")
    momentum: float = Field(default=0.5, ge=0, lt=1, description="factor on the previous step")
    weight_decay: float = Field(default=0.0002, ge=0, description="applied to weights, not to biases")
    visible: Visible = Field(
        default="bernoulli",
        description="input units of the first layer: bernoulli for values in [0, 1], gaussian for"
        " values with variance about 1",
    )
    cd_steps: int = Field(
        default=1, ge=1, description="rbm: number of Gibbs steps for the negative phase of the gradient"
    )
    persistent: bool = Field(
        default=False,
        description="rbm: persistent contrastive divergence: chains continue from"
        " step to step instead of starting at the data",
    )
    corruption: float = Field(
        default=0.3, ge=0, lt=1, description="denoising-autoencoder: fraction of the inputs that are set to 0"
    )
    tied: bool = Field(
        default=True, description="denoising-autoencoder: the decoder's weights are the encoder's, transposed"
    )

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "PretrainingSpec":
        for field, why in self._unused():
            value = getattr(self, field)
            if value != type(self).model_fields[field].default:
                raise ValueError(f"{field} {value} has no effect with {why}; remove it")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        for field, _ in self._unused():
            content.pop(field, None)
        return content

    def _unused(self) -> Iterator[tuple[str, str]]:
        for field in ("corruption", "tied") if self.method == "rbm" else ("cd_steps", "persistent"):
            yield field, f"method {self.method}"
        if self.visible == "bernoulli":
            yield "gaussian_learning_rate", "visible bernoulli"
