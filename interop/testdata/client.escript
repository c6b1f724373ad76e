%% A DTLS client. Each term {Id, Port, Suite, Options} of the standard input
%% has it connect, send a message and print the answer, or why there is none.
%% Without ssl, which Debian packages apart, it ends at once.

-mode(compile). % the interpreter does not know local functions in processes

main([]) ->
    ok = logger:set_primary_config(level, none),
    case application:ensure_all_started(ssl) of
        {ok, _} ->
            io:format("ready~n"),
            serve([]);
        _ ->
            ok
    end.

serve(Running) ->
    case io:read("") of
        {ok, Job} ->
            {_, Ref} = spawn_monitor(fun() -> run(Job) end),
            serve([Ref | Running]);
        eof ->
            [receive {'DOWN', Ref, process, _, _} -> ok end || Ref <- Running]
    end.

run({Id, Port, Suite, Options}) ->
    Line = try connect(Port, Suite, lists:flatmap(fun option/1, Options))
           catch _:Why -> io_lib:format("~0p", [Why])
           end,
    io:format("job ~p: ~s~n", [Id, Line]).

option({psk, Identity, Key}) ->
    [{psk_identity, Identity},
     {user_lookup_fun, {fun(psk, _Hint, State) -> {ok, State} end, Key}}];
option(Option) ->
    [Option].

connect(Port, Suite, Options) ->
    {ok, S} = ssl:connect({127, 0, 0, 1}, Port,
                          [{protocol, dtls}, {versions, ['dtlsv1.2']}, {active, false},
                           {mode, binary}, {ciphers, [ssl:str_to_suite(Suite)]} | Options],
                          15000),
    ok = ssl:send(S, <<"hello">>),
    {ok, Answer} = ssl:recv(S, 0, 15000),
    ok = ssl:close(S),
    Answer.
