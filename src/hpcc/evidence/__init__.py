"""What a binary consists of, and where each part came from, as a file that anybody can check.

An evidence file has the exact records that workers signed, and what follows from them: statements,
proofs, a summary. A check makes what follows again and compares it
byte for byte.
"""
