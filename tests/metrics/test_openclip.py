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
    assert isinstance(clip, ImageTextEncoder) and clip.name == f"{NAME} (tiny.pt, GELU)"


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

    chosen = choose_weights(MODEL, None)
    assert (chosen.weights, chosen.tag, chosen.is_file) == (WEIGHTS, WEIGHTS, False)
    assert WEIGHTS in open_clip.list_pretrained_tags_by_model(MODEL)


@pytest.mark.parametrize(
    ("model", "tag", "quick_gelu", "mean", "resize_mode"),
    [
        ("ViT-B-32", "openai", True, 0.48145466, "shortest"),
        ("ViT-B-32", "laion2b_s34b_b79k", False, 0.48145466, "shortest"),
        ("ViT-B-32-quickgelu", "openai", True, 0.48145466, "shortest"),
        ("ViT-L-14", "laion2b_s32b_b82k", False, 0.5, "shortest"),
        ("ViT-H-14", "dfn5b", True, 0.48145466, "squash"),
    ],
)
def test_a_tag_and_a_file_of_it_have_one_configuration(
    weights: Path, model: str, tag: str, quick_gelu: bool, mean: float, resize_mode: str
):
    """As published: OpenAI, DFN and MetaCLIP trained with QuickGELU, one ViT-L-14 on other pictures."""
    by_tag, by_file = choose_weights(model, tag), choose_weights(model, weights, tag)
    assert by_tag.quick_gelu == by_file.quick_gelu == quick_gelu
    assert by_tag.preprocessing == by_file.preprocessing and by_file.is_file and not by_tag.is_file
    assert by_tag.preprocessing["mean"][0] == mean and by_tag.preprocessing["resize_mode"] == resize_mode
    assert by_tag.described == f"{tag}, {'QuickGELU' if quick_gelu else 'GELU'}"


def test_a_file_needs_no_tag_where_the_models_tags_agree(weights: Path):
    chosen = choose_weights("ViT-B-16-SigLIP", weights)
    assert chosen.preprocessing["mean"] == (0.5, 0.5, 0.5) and chosen.preprocessing["resize_mode"] == "squash"
    assert chosen.tag is None and chosen.described == "tiny.pt, GELU"
    assert choose_weights("RN50", weights).quick_gelu, "all of its weights were trained so"
    assert choose_weights(NAME, weights).preprocessing == {}, "open_clip knows no weights of this model"


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways in which weights of the tiny model were trained."""
    import open_clip.pretrained

    plain = {
        "mean": (0.48, 0.46, 0.41),
        "std": (0.27, 0.26, 0.28),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    quick = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear", "resize_mode": "squash"}
    table = {"plain": plain, "quick": {**quick, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, table)


def test_a_file_is_used_as_its_tag_says(tags: None, weights: Path):
    """Preprocessing and activation, each against the same written out with open_clip and torch."""
    import open_clip
    from torch.nn.functional import interpolate, normalize

    clip = OpenClip(NAME, weights, tag="quick")
    assert clip.name == f"{NAME} (tiny.pt, as quick, QuickGELU)"
    model: Any = open_clip.create_model(NAME, pretrained=str(weights), force_quick_gelu=True).eval()
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    blocks = ((255 * image).round() / 255).repeat_interleave(24, 2).repeat_interleave(8, 3)  # squashed from 96 x 32
    small = interpolate(blocks, (32, 32), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    with torch.no_grad():
        expected = normalize(model.encode_image((small - mean) / std), dim=1)
    assert torch.allclose(clip.encode_images(blocks), expected, atol=2e-3)
    plain = OpenClip(NAME, weights, tag="plain")
    assert plain.name == f"{NAME} (tiny.pt, as plain, GELU)"
    assert (plain.encode_images(blocks) - expected).abs().max() > 0.05
    texts = ["a red car", "night"]
    assert (plain.encode_texts(texts) - clip.encode_texts(texts)).abs().max() > 1e-3, "the activation alone"


def test_what_a_tag_cannot_say(tags: None, weights: Path):
    for given, tag, complaint in (
        (
            weights,
            None,
            "tiny.pt: weights of .* differ in activation or .* add --clip-tag .*: give one of plain, quick$",
        ),
        (weights, "slow", f"--clip-tag slow is unknown to open_clip for {NAME}: give one of plain, quick$"),
        ("plain", "plain", "--clip-tag plain says how the weights in a local file were trained: give the file"),
        (None, "plain", "--clip-tag plain says how the weights in a local file were trained: give the file"),
    ):
        with pytest.raises(ValueError, match=complaint):
            OpenClip(NAME, given, tag=tag)


def test_a_model_without_tags_takes_none(weights: Path):
    with pytest.raises(ValueError, match=f"--clip-tag plain is unknown to open_clip for {NAME}: it has none, leave"):
        choose_weights(NAME, weights, "plain")


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
