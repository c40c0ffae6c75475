"""Plain containers that pass between data, propagation and evaluation."""

from mmliir.structures.point_sample import PointSample
from mmliir.structures.video_sample import FrameSequence, VideoSample

__all__ = ['FrameSequence', 'PointSample', 'VideoSample']
