"""What each command of `straggler` does; `straggler.cli` says what each is called with."""
