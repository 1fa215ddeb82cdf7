"""The portal: the system as pages for a browser. A client of the API like any other; it owns nothing."""
