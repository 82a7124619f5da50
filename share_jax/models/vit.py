"""A pre-norm vision transformer of any size in Linen, and the pretraining of a small one on unlabelled images.

Paths follow the BERT encoder's: `encoder/layer_2/attention/query/kernel` (d, heads, head_dim),
`encoder/layer_2/ffn_up/kernel`, `encoder/layer_2/ffn_down/kernel`, `head/kernel`.

Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.typing import Dtype

from share_jax.annotations import Float
from share_jax.errors import InputError, message
from share_jax.models.attention import attend
from share_jax.models.gelu import exact_gelu
from share_jax.models.split_point import START, Cut, Sublayer, check_cut, parts
from share_jax.typing import Array


@dataclass(frozen=True)
class VitConfig:
    """Sizes of a vision transformer; images are square, `image_size` pixels a side, of any number of channels.

    Attributes:
        class_token: whether a learnt token goes before the patches, and its last state is what heads see; otherwise
            that is the mean over the patches.
        layer_norm_eps: added to the variance in every LayerNorm.
        exact_gelu: erf GELU instead of its tanh approximation.

    Raises:
        InputError: a size is no whole number of at least 1, patches do not tile the image, or heads do not divide
            `hidden_size`.

    Example:
        >>> VitConfig(image_size=32, patch_size=4).patches
        8
        >>> VitConfig(image_size=32, patch_size=5)
        Traceback (most recent call last):
        share_jax.errors.InputError: image_size: got 32, expected a multiple of patch_size=5; correct the config
    """

    image_size: int = 8
    patch_size: int = 2
    hidden_size: int = 64
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 128
    class_token: bool = False
    layer_norm_eps: float = 1e-6
    exact_gelu: bool = False

    def __post_init__(self) -> None:
        """Checks the fields."""
        for name in ("image_size", "patch_size", "hidden_size", "num_layers", "num_heads", "intermediate_size"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                expected = "a whole number of at least 1"
                raise InputError(message(name, got=repr(value), expected=expected, fix="correct the config"))
        for name, part in (("image_size", "patch_size"), ("hidden_size", "num_heads")):
            if getattr(self, name) % (unit := getattr(self, part)):
                expected = f"a multiple of {part}={unit}"
                got = getattr(self, name)
                raise InputError(message(name, got=got, expected=expected, fix="correct the config"))

    @property
    def patches(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size


class VitLayer(nn.Module):
    """One pre-norm layer: attention, then a perceptron with GELU, each with a residual."""

    config: VitConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts `attention_norm`, `attention`, `ffn_norm`, `ffn_up`, `ffn_down`."""
        c = self.config
        self.attention_norm = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)
        self.attention = nn.MultiHeadDotProductAttention(c.num_heads, dtype=self.dtype, attention_fn=attend)
        self.ffn_norm = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)
        self.ffn_up = nn.Dense(c.intermediate_size, dtype=self.dtype)
        self.ffn_down = nn.Dense(c.hidden_size, dtype=self.dtype)

    def attend(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """The first sublayer."""
        return x + self.attention(self.attention_norm(x))

    def feed(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """The second sublayer."""
        up = self.ffn_up(self.ffn_norm(x))
        return x + self.ffn_down(exact_gelu(up) if self.config.exact_gelu else nn.gelu(up))

    def __call__(self, x: Float[Array, "batch n d"]) -> Float[Array, "batch n d"]:
        """Runs the layer."""
        return self.feed(self.attend(x))


class VitEncoder(nn.Module):
    """Patches, learnt positions, the layers and a last LayerNorm; can stop before, or start at, any layer."""

    config: VitConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts `patch`, `class_token`, `position`, `layer_0`, ..., `norm`."""
        c = self.config
        self.patch = nn.Dense(c.hidden_size, dtype=self.dtype)
        if c.class_token:
            self.class_token = self.param("class_token", nn.initializers.zeros, (c.hidden_size,))
        shape = (c.patches**2 + c.class_token, c.hidden_size)
        self.position = self.param("position", nn.initializers.normal(0.5), shape)
        self.layer = [VitLayer(c, self.dtype) for _ in range(c.num_layers)]
        self.norm = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=self.dtype)

    def embed(self, images: Float[Array, "batch side side channels"]) -> Float[Array, "batch n d"]:
        """Images to the input of layer 0: the class token if there is one, then each patch in reading order."""
        c = self.config
        if images.ndim != 4 or images.shape[1:3] != (c.image_size, c.image_size):
            expected = f"(batch, {c.image_size}, {c.image_size}, channels)"
            raise InputError(message("shape of images", got=images.shape, expected=expected, fix="resize the images"))
        batch, channels = images.shape[0], images.shape[3]
        count, patch = c.patches, c.patch_size
        tiles = images.reshape(batch, count, patch, count, patch, channels).transpose(0, 1, 3, 2, 4, 5)
        rows = self.patch(tiles.reshape(batch, count * count, patch * patch * channels))
        if c.class_token:
            first = jnp.broadcast_to(self.class_token.astype(self.dtype), (batch, 1, c.hidden_size))
            rows = jnp.concatenate([first, rows], axis=1)
        return rows + self.position[None].astype(self.dtype)

    def run(
        self, hidden: Float[Array, "batch n d"], first: Cut = START, last: Cut | None = None
    ) -> Float[Array, "batch n d"]:
        """Runs what lies between two cuts; `last=None` runs all that is left, and the last LayerNorm."""
        hidden = hidden.astype(self.dtype)
        for index, part in parts(first, last, len(self.layer)):
            layer = self.layer[index]
            match part:
                case "attention":
                    hidden = layer.attend(hidden)
                case "ffn":
                    hidden = layer.feed(hidden)
                case _:
                    hidden = layer(hidden)
        return self.norm(hidden) if last is None else hidden


class VitClassifier(nn.Module):
    """Encoder, the class token or the mean over the patches, and one linear head; otherwise as `BertClassifier`.

    Attributes:
        config: the sizes.
        num_classes: width of the logits.
        first_layer: the layer at which a given `hidden` enters, in [0, num_layers].
        dtype: compute type of the encoder; pooling, head and logits are float32.
        first_sublayer: where in that layer: before its attention, or between that and its "ffn".

    Example:
        >>> model, images = VitClassifier(VitConfig(), num_classes=10), jnp.ones((2, 8, 8, 1))
        >>> params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        >>> params["encoder"]["layer_0"]["ffn_up"]["kernel"].shape
        (64, 128)
        >>> jax.eval_shape(model.apply, {"params": params}, images).shape
        (2, 10)
    """

    config: VitConfig
    num_classes: int
    first_layer: int = 0
    dtype: Dtype = jnp.float32
    first_sublayer: Sublayer = "attention"

    def setup(self) -> None:
        """Names the parts `encoder` and `head`."""
        check_cut(self.cut, self.config.num_layers)
        self.encoder = VitEncoder(self.config, self.dtype)
        self.head = nn.Dense(self.num_classes)

    @property
    def cut(self) -> Cut:
        """Where `hidden` enters."""
        return Cut(self.first_layer, self.first_sublayer)

    def prefix(self, images: Float[Array, "batch side side channels"]) -> Float[Array, "batch n d"]:
        """Patches and what lies below the cut: the `hidden` of `__call__`."""
        return self.encoder.run(self.encoder.embed(images), last=self.cut)

    def features(
        self,
        images: Float[Array, "batch side side channels"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        pooled: Float[Array, "batch d"] | None = None,
    ) -> Float[Array, "batch d"]:
        """The pooled vector that the head sees, float32."""
        inputs = {"images": images, "hidden": hidden, "pooled": pooled}
        given = [name for name, value in inputs.items() if value is not None]
        alone = len(given) == 1
        if pooled is not None and alone:
            return pooled
        if images is not None and alone:
            hidden = self.prefix(images)
        elif hidden is None or not alone:
            raise InputError(message("model inputs", got=given, expected="images, hidden or pooled", fix="pass one"))
        last = self.encoder.run(hidden, self.cut).astype(jnp.float32)
        return self.pooled(last)

    @property
    def sees_first(self) -> bool:
        """Whether the pooled vector is the last state of the first token, and not a mean over all."""
        return self.config.class_token

    def pooled(self, hidden: Float[Array, "batch n d"]) -> Float[Array, "batch d"]:
        """One vector for each image: the last state of its class token, or the mean over its patches."""
        return hidden[:, 0] if self.sees_first else hidden.mean(axis=1)

    def __call__(
        self,
        images: Float[Array, "batch side side channels"] | None = None,
        hidden: Float[Array, "batch n d"] | None = None,
        pooled: Float[Array, "batch d"] | None = None,
    ) -> Float[Array, "batch classes"]:
        """Logits from images, from the `hidden` that `prefix` returned, or from the `pooled` that `features` did.

        Raises:
            InputError: not exactly one of the three.
        """
        return self.head(self.features(images, hidden, pooled))


def pretrain_vit(
    images: np.ndarray,
    config: VitConfig = VitConfig(),
    *,
    seed: int = 0,
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    notify: Callable[[int, float], None] | None = None,
) -> dict:
    """`params` of a `VitEncoder` from whose pooled vector one linear layer redraws the image.

    An autoencoder whose bottleneck is the mean over the patches, the vector that heads see; no class label is used.
    AdamW with a cosine schedule, a tenth of the steps warm-up.

    Args:
        images: float32 (N, side, side, channels), training images only.
        config: the sizes.
        seed: of the initialisation and of the order of the images.
        steps: optimizer steps.
        batch_size: images per step.
        learning_rate: the peak.
        notify: is told each step's number, from 1, and its loss (mean squared error per pixel).

    Raises:
        InputError: no images, or another shape than the config's.

    Example:
        >>> images = np.ones((4, 4, 4, 1), np.float32)
        >>> config = VitConfig(image_size=4, hidden_size=4, num_layers=1, num_heads=1, intermediate_size=4)
        >>> encoder = pretrain_vit(images, config, steps=2, batch_size=2)
        >>> sorted(encoder)
        ['layer_0', 'norm', 'patch', 'position']
    """
    if not len(images):
        raise InputError(message("images to pretrain on", got="none", expected="at least one", fix="pass some"))
    every = np.asarray(images, np.float32)
    pixels = every.reshape(len(every), -1)
    pixels = pixels - pixels.mean(axis=0, keepdims=True)
    model = VitClassifier(config, num_classes=pixels.shape[1])
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(1, steps // 10), max(2, steps))
    optimizer = optax.adamw(schedule, weight_decay=0.05)
    params = model.init(jax.random.key(seed), jnp.asarray(every[:1]))["params"]
    state = optimizer.init(params)
    step = jax.jit(partial(_redraw_step, model, optimizer), donate_argnums=(0, 1))
    rng = np.random.default_rng(seed)
    for number in range(1, steps + 1):
        chosen = rng.integers(len(every), size=batch_size)
        params, state, error = step(params, state, every[chosen], pixels[chosen])
        if notify is not None:
            notify(number, float(error))
    return dict(params["encoder"])


def _redraw_step(model, optimizer, params, state, images, pixels):
    def loss(params):
        return jnp.square(model.apply({"params": params}, images) - pixels).mean()

    error, slope = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(slope, state, params)
    return optax.apply_updates(params, updates), state, error
