# LIIR, ResNet-18, YouTube-VOS: the main recipe (Li et al., CVPR 2022).
#   python tools/train.py configs/liir_r18_ytvos.py --data-root data/youtube_vos
_base_ = [
    '_base_/models/liir_r18.py',
    '_base_/data/ytvos_pairs.py',
    '_base_/schedules/liir_two_stage.py',
    '_base_/default_runtime.py',
]
# How this method is tested unless `--protocol` says otherwise.
protocol = 'liir_paper'
