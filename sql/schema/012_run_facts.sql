-- What was found or chosen for a run, apart from the options that the command was given.
alter table store.run add column facts json;

-- Both were in `options` before; what the command has no option for goes over.
update store.run set
    facts = json_merge_patch(
        '{}',
        json_object(
            'path', string_split(options ->> '$.path', '; ')[1],
            'between', string_split(options ->> '$.path', '; ')[2:],
            'device', options ->> '$.device',
            'tagger', options ->> '$.tagger',
            'rare_tokens', options -> '$.rare_tokens',
            'rare_tokens_met', options -> '$.rare_tokens_met',
            'pairs', options -> '$.pairs',
            'matched_contexts', options -> '$.matched_contexts'
        )
    ),
    options = json_merge_patch(
        options,
        case
            when (options ->> '$.frequencies') like 'counted over %'
                then '{"frequencies": "corpus"}'
            else '{}'
        end,
        '{"path": null, "tagger": null, "rare_tokens": null, "rare_tokens_met": null,
          "pairs": null, "matched_contexts": null}'
    )
where options is not null;
