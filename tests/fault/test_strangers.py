"""Faults of the gate and the queues: in the making."""
