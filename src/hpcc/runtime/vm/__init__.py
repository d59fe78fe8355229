"""What every virtual machine backend shares: boot ladder, snapshots, warm start."""
