"""The engine: decodes by tree speculation. The only room that imports torch, and it does so only where it decodes."""
