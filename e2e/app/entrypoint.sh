#!/bin/sh
# What many images do: prepare the environment, then become the command.
export PREPARED="by the entrypoint"
exec "$@"
