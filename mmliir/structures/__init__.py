"""Plain containers that pass between data, propagation and evaluation."""

from mmliir.structures.video_sample import FrameSequence, VideoSample

__all__ = ['FrameSequence', 'VideoSample']
