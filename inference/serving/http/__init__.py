"""The service as seen by HTTP: routes, keys and sign-in, limits, admission, sockets."""
