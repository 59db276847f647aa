#!/bin/sh
# A build under a lock: build.sh REPOSITORY COMMAND
#
# `git lock run` holds the lock for as long as the command runs, ends the command if the lock is lost, passes its exit code
# on, and sets GIT_LOCK_TOKEN.
exec git-lock -C "${1:-.}" run --wait 1m --reason "an example in the shell" build-lock -- sh -c "${2:-make}"
