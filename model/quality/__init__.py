"""Networks that predict how speech is rated by listeners."""
