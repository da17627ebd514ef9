"""What each command of `straggler` does; `straggler.usage` says what each is called with."""
