-- session
discard(arg())
return 1
