"""A stand-in for the chain and for Hermes, on loopback: real wire formats at the real addresses, simulated prices."""
