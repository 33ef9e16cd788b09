"""What differs between the servers: a module NAME_server.py for each, with a class of app_server.py and main()."""
