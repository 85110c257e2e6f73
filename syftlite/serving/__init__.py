"""Private prediction: models that are shared among workers and queried by clients, neither of which anyone else sees."""
