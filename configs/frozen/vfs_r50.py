# VFS, ResNet-50, otherwise as vfs_r18.py.
_base_ = ['vfs_r18.py']
model = dict(backbone=dict(depth=50))
# its config for this network: neighbor_range 36
protocol = dict(_delete_=True, base='vfs', changes=dict(radius=18))
