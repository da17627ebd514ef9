"""What each command of `straggler` is called with; `straggler.commands` says what each does."""
