"""Nothing here is judged by how long it takes."""

from hypothesis import settings

settings.register_profile("quickdraw", deadline=None)
settings.load_profile("quickdraw")
