complete --keep-order --exclusive --command sockd --arguments "(SOCKD_COMPLETE=fish sockd -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
