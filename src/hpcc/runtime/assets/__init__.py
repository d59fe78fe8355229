"""What a guest boots from besides its image: kernel, initramfs, agent drive.

Assets are made once under a key of their content. Their digests are part of a guest's identity.
"""
