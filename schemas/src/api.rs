//! Bodies of the management API `/v1`: written by the controller, read by the CLI.
