# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sockd_global_optspecs
    string join \n h/help V/version
end

function __fish_sockd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sockd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sockd_using_subcommand
    set -l cmd (__fish_sockd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sockd -n "__fish_sockd_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockd -n "__fish_sockd_needs_command" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "run" -d 'Run an application server: what ExecStart= names'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "demo" -d 'See it work without systemd, Python or set-up'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "status" -d 'Show every instance: unit, sockets, workers'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "check" -d 'Check a configuration or a unit and show every problem at once'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "doctor" -d 'Find the broken link between browser and application, and the command that fixes it'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "reload" -d 'Reload a unit and wait for the outcome'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "logs" -d 'Show what the journal holds of a unit or a worker'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "adopt" -d 'Turn a service that runs its server itself into one that sockd runs'
complete -c sockd -n "__fish_sockd_needs_command" -f -a "new" -d 'Write configuration, service and Nginx site of a new application'
complete -c sockd -n "__fish_sockd_using_subcommand run" -l config -d 'Read this configuration file' -r -F
complete -c sockd -n "__fish_sockd_using_subcommand run" -l directory -d 'Run the command in this directory (an absolute path)' -r -F
complete -c sockd -n "__fish_sockd_using_subcommand run" -l env -d 'Set a variable in the workers\' environment; repeatable' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l listen -d 'Listen here when systemd hands over no socket: unix:PATH, HOST:PORT or PORT; repeatable' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l workers -d 'Number of workers, 1 to 4096 [default: what the server\'s own options say, else 1]' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l start -d 'When to start the first worker [default: on-connection under a socket unit, else at-once]' -r -f -a "at-once\t'As soon as sockd starts'
on-connection\t'When the first connection waits'"
complete -c sockd -n "__fish_sockd_using_subcommand run" -l start-timeout -d 'How long a worker may take to be ready [default: 60s]' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l stop-timeout -d 'How long a worker may take to stop [default: what the server\'s own options say, else 30s]' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l drain-timeout -d 'How long a replaced worker may finish what it has begun [default: as --stop-timeout]' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l watchdog -d 'Replace a worker without a heartbeat for so long [default: the server\'s own, else never]' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l ready-after -d 'When a worker that can tell nothing of itself counts as ready [default: 1s]' -r
complete -c sockd -n "__fish_sockd_using_subcommand run" -l preload -d 'Load the application once, before forking workers (Python) [default: the server\'s own]'
complete -c sockd -n "__fish_sockd_using_subcommand run" -l no-canary -d 'Reload without proving the new code on a canary first'
complete -c sockd -n "__fish_sockd_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockd -n "__fish_sockd_using_subcommand run" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand demo" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand demo" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand status" -l json -d 'Print an array of objects for programs'
complete -c sockd -n "__fish_sockd_using_subcommand status" -l watch -d 'Show it again each second, until Ctrl-C'
complete -c sockd -n "__fish_sockd_using_subcommand status" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand status" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand check" -l json -d 'Tell the problems as JSON'
complete -c sockd -n "__fish_sockd_using_subcommand check" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand check" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand doctor" -l host -d 'The name that the browser asks for' -r
complete -c sockd -n "__fish_sockd_using_subcommand doctor" -l path -d 'The path of the page to ask for' -r
complete -c sockd -n "__fish_sockd_using_subcommand doctor" -l json -d 'Print an array of objects for programs'
complete -c sockd -n "__fish_sockd_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand reload" -l no-wait -d 'Return as soon as the reload has begun'
complete -c sockd -n "__fish_sockd_using_subcommand reload" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand reload" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand logs" -l worker -d 'Show what this worker of the last run wrote, and what sockd says of it' -r
complete -c sockd -n "__fish_sockd_using_subcommand logs" -s n -l lines -d 'Show the last lines alone' -r
complete -c sockd -n "__fish_sockd_using_subcommand logs" -s f -l follow -d 'Go on with what is written from now on'
complete -c sockd -n "__fish_sockd_using_subcommand logs" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand logs" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand adopt" -l write -d 'Write the files, and let systemd read its units again'
complete -c sockd -n "__fish_sockd_using_subcommand adopt" -l undo -d 'Remove what an earlier --write has written'
complete -c sockd -n "__fish_sockd_using_subcommand adopt" -l socket -d 'Make a socket unit, too, that takes the place of the server\'s own --bind'
complete -c sockd -n "__fish_sockd_using_subcommand adopt" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand adopt" -s V -l version -d 'Print version'
complete -c sockd -n "__fish_sockd_using_subcommand new" -l directory -d 'Where the application is: its working directory (an absolute path)' -r
complete -c sockd -n "__fish_sockd_using_subcommand new" -l user -d 'Who it runs as' -r
complete -c sockd -n "__fish_sockd_using_subcommand new" -l listen -d 'Where it listens: a path or HOST:PORT [default: /run/sockd/NAME.sock]' -r
complete -c sockd -n "__fish_sockd_using_subcommand new" -l domain -d 'The name of the site, for Nginx; without one no site is written' -r
complete -c sockd -n "__fish_sockd_using_subcommand new" -l enable -d 'Enable the Nginx site, too'
complete -c sockd -n "__fish_sockd_using_subcommand new" -l undo -d 'Remove what an earlier `new` has written, and stop it'
complete -c sockd -n "__fish_sockd_using_subcommand new" -s h -l help -d 'Print help'
complete -c sockd -n "__fish_sockd_using_subcommand new" -s V -l version -d 'Print version'
