"""The composition root: the only room (with ``cli``) that knows concrete sources and puts the parts together."""
