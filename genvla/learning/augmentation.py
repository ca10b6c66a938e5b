"""Random changes of pictures, so that a policy does not learn one room's light by heart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.policy.processor import PolicyInputs


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for each sample and camera. All 0: nothing is changed.

    Args:
        brightness: factors 1 +- brightness on all pixels.
        contrast: factors 1 +- contrast on the distance from the picture's mean.
        colour: factors 1 +- colour on each of red, green and blue.
        shift: pixels, up to which the picture moves; the border is repeated. It moves what the labels say stands still, so with
            millimetres at stake leave it 0.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    shift: int = 0

    def __call__(self, inputs: PolicyInputs, draw: torch.Generator) -> PolicyInputs:
        """The inputs with other pictures, uint8 as before."""
        if not (self.brightness or self.contrast or self.colour or self.shift):
            return inputs
        images = inputs.images
        b, n, h, w, _ = images.shape

        def factor(strength: float, channels: int = 1) -> Float[Tensor, "b n 1 1 c"]:
            noise = torch.rand(b, n, 1, 1, channels, generator=draw, device=draw.device).to(images.device)
            return 1 + strength * (2 * noise - 1)

        pixels = images.float()
        mean = pixels.mean(dim=(2, 3, 4), keepdim=True)
        pixels = mean + (pixels - mean) * factor(self.contrast)
        pixels = pixels * factor(self.brightness) * factor(self.colour, channels=3)
        changed = pixels.round().clamp(0, 255).to(torch.uint8)
        if self.shift:
            changed = self._shifted(changed, draw)
        return replace(inputs, images=changed)

    def _shifted(self, images: Tensor, draw: torch.Generator) -> Tensor:
        b, n, h, w, _ = images.shape
        moves = torch.randint(-self.shift, self.shift + 1, (2, b, n, 1), generator=draw, device=draw.device).to(images.device)
        rows = (torch.arange(h, device=images.device) + moves[0]).clamp(0, h - 1)
        columns = (torch.arange(w, device=images.device) + moves[1]).clamp(0, w - 1)
        sample = torch.arange(b, device=images.device)[:, None, None, None]
        camera = torch.arange(n, device=images.device)[None, :, None, None]
        return images[sample, camera, rows[:, :, :, None], columns[:, :, None, :]]
