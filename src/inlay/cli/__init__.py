"""The command line: each verb parses, composes a configuration and calls the package that does the work."""
