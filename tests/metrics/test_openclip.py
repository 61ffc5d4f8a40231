from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from csd_nerf.metrics import ImageTextEncoder, directional_similarity
from csd_nerf.metrics.openclip import MODEL, WEIGHTS, OpenClip, choose_weights
from tests.metrics.tiny_clip import NAME, make_tiny_clip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(weights: Path) -> OpenClip:
    return OpenClip(NAME, weights, batch=2)


def test_it_is_an_encoder_that_says_which(clip: OpenClip):
    assert isinstance(clip, ImageTextEncoder) and clip.name == f"{NAME} (tiny.pt)"


@pytest.mark.parametrize("size", [(32, 32), (71, 50), (20, 90)])
def test_pictures_are_embedded_as_open_clip_itself_does(weights: Path, clip: OpenClip, size: tuple[int, int]):
    """A picture through open_clip's own transform and model."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(NAME, pretrained=str(weights))
    pixels = (torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 255).byte()
    own: Any = transform
    with torch.no_grad():
        picture = own(Image.fromarray(pixels.permute(1, 2, 0).numpy()))[None]
        expected = model.eval().encode_image(picture, normalize=True)  # pyright: ignore[reportCallIssue]
    assert torch.allclose(clip.encode_images(pixels[None].float() / 255), expected, atol=1e-6)


def test_texts_are_embedded_as_open_clip_itself_does(weights: Path, clip: OpenClip):
    import open_clip

    model = open_clip.create_model(NAME, pretrained=str(weights)).eval()
    texts = ["a red car", "a car in the snow", "night"]
    with torch.no_grad():
        tokens = open_clip.get_tokenizer(NAME)(texts)
        expected = model.encode_text(tokens, normalize=True)  # pyright: ignore[reportCallIssue]
    assert torch.allclose(clip.encode_texts(texts), expected, atol=1e-6)


def test_embeddings_have_unit_length_in_any_batch(weights: Path, clip: OpenClip):
    images = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    embedded = clip.encode_images(images)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(5)) and not embedded.requires_grad
    assert torch.allclose(embedded, OpenClip(NAME, weights, batch=5).encode_images(images), atol=1e-5)


def test_scores_through_a_real_model(clip: OpenClip):
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert directional_similarity(clip, images, images, "a car", "snow").values == [0, 0]
    score = directional_similarity(clip, images, 1 - images, "a car", "snow")
    assert all(-1 <= value <= 1 for value in score.values) and NAME in score.note


def test_the_papers_weights_are_the_default():
    import open_clip

    assert choose_weights(MODEL, None) == WEIGHTS
    assert WEIGHTS in open_clip.list_pretrained_tags_by_model(MODEL)
    assert choose_weights("ViT-B-32", "openai") == "openai"


@pytest.mark.parametrize(
    ("model", "given", "complaint"),
    [
        ("ViT-Q-99", None, "--clip ViT-Q-99 is unknown to open_clip: give one of its models, such as ViT-B-32"),
        ("ViT-B-32", None, "--clip-weights is missing: give a local file of weights of ViT-B-32, or one of openai"),
        ("ViT-B-32", "none.pt", "--clip-weights none.pt is neither a file nor known"),
        (NAME, None, f"--clip-weights is missing: give a local file of weights of {NAME}$"),
    ],
)
def test_what_cannot_be_chosen_names_its_flag(weights: Path, model: str, given: str | None, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        choose_weights(model, given)


def test_a_file_of_other_weights_is_refused(tmp_path: Path, weights: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(OSError, match=r"--clip-weights .*other.pt cannot be loaded"):
        OpenClip(NAME, tmp_path / "other.pt")


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to download weights\nretry")

    monkeypatch.setattr("open_clip.download_pretrained", fail)
    with pytest.raises(OSError) as error:
        OpenClip()
    assert str(error.value).startswith(
        f"--clip {MODEL} with --clip-weights {WEIGHTS} cannot be loaded (Failed to download weights). Download"
    )
