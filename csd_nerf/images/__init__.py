"""Pictures and videos as sets of images: panoramas in patches, videos in frames; pictures of words alone."""

from csd_nerf.images.layers import LayerResult, LayerSettings, edit_layers, write_layers
from csd_nerf.images.panorama import PanoramaEditor, edit_panorama
from csd_nerf.images.panorama_edit import PanoramaResult
from csd_nerf.images.picture_files import Picture, read_picture, write_picture
from csd_nerf.images.regions import Region
from csd_nerf.images.synthesis import SynthesisResult, SynthesisSettings, synthesize
from csd_nerf.images.video import VideoEditor, VideoResult, edit_video

__all__ = [
    "LayerResult",
    "LayerSettings",
    "PanoramaEditor",
    "PanoramaResult",
    "Picture",
    "Region",
    "SynthesisResult",
    "SynthesisSettings",
    "VideoEditor",
    "VideoResult",
    "edit_layers",
    "edit_panorama",
    "edit_video",
    "read_picture",
    "synthesize",
    "write_layers",
    "write_picture",
]
