"""Scenes and objects in the files of EmbodiedGen, read and written.

Its conventions live in this package alone: meshes with y up that a URDF turns upright, quaternions x, y, z, w, free text as
names. Outside of it everything is as `scenegen.schema` says.
"""
