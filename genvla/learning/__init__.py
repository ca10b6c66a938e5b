"""How a policy learns: by imitation of the scripted expert, then by reinforcement (PPOFlow). One loop serves both."""
