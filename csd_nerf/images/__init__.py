"""Pictures and videos as sets of images: panoramas in patches, videos in frames. See `edit_panorama`, `edit_video`."""

from csd_nerf.images.panorama import PanoramaEditor, edit_panorama
from csd_nerf.images.panorama_edit import PanoramaResult
from csd_nerf.images.picture_files import Picture, read_picture, write_picture
from csd_nerf.images.regions import Region
from csd_nerf.images.video import VideoEditor, VideoResult, edit_video

__all__ = [
    "PanoramaEditor",
    "PanoramaResult",
    "Picture",
    "Region",
    "VideoEditor",
    "VideoResult",
    "edit_panorama",
    "edit_video",
    "read_picture",
    "write_picture",
]
