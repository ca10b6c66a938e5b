"""What acts: pi0 with a stochastic integrator. Knows neither simulator nor robot."""
