"""Language models that continue a text: token by token, timed, and with what they read counted."""
