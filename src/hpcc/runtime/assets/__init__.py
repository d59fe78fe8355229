"""What a guest boots from besides its image: kernel, initramfs, agent drive."""
