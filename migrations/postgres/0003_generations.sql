-- Generations: their tables, made ahead.

create function bellwire.create_generation(g int) returns void language plpgsql volatile as $fn$
begin
  execute format($f$
    create table bellwire.event_batch_%1$s (like bellwire.event_batch including all, check (gen = %1$s),
      check (count >= 1), primary key (lane, first_seq));
    create table bellwire.append_mark_%1$s (like bellwire.append_mark including all, check (gen = %1$s), primary key (append_id));
    create table bellwire.source_position_%1$s (like bellwire.source_position including all, check (gen = %1$s), primary key (shard, ver));
    create table bellwire.duplicate_%1$s (like bellwire.duplicate including all, check (gen = %1$s), primary key (append_id, ord));
    create table bellwire.checkpoint_%1$s (like bellwire.checkpoint including all, check (gen = %1$s), primary key (lane, binding, ver));
    create table bellwire.delivery_log_%1$s (like bellwire.delivery_log including all, check (gen = %1$s));
    alter table bellwire.event_batch attach partition bellwire.event_batch_%1$s for values in (%1$s);
    alter table bellwire.append_mark attach partition bellwire.append_mark_%1$s for values in (%1$s);
    alter table bellwire.source_position attach partition bellwire.source_position_%1$s for values in (%1$s);
    alter table bellwire.duplicate attach partition bellwire.duplicate_%1$s for values in (%1$s);
    alter table bellwire.checkpoint attach partition bellwire.checkpoint_%1$s for values in (%1$s);
    alter table bellwire.delivery_log attach partition bellwire.delivery_log_%1$s for values in (%1$s);
  $f$, g);
  perform bellwire.create_append(g);
  perform bellwire.create_flush(g);
end $fn$;
