"""The Protocols that plugins fulfil, and the loader that finds them by entry point."""
