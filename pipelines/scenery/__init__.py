"""A made-up landscape: what lies where is decided by noise and dice, and drawn as it looks from above."""
