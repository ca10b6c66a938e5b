"""The WidowX 250S: description, kinematics and control. Knows neither simulator nor policy."""
