-- Debts that were not tried so far count as waiting: parked ones (3), and those that wait for their time or the end of their
-- burst (5, 6 without an attempt). The latter are old from that time on only.

-- Totals of every binding; see `BindingTotals`. `ended`: delivered, filtered, expired, dead, discarded.
create function bellwire.accounts()
returns table (binding int, ended bigint[], waiting bigint, retrying bigint, dead_letters bigint,
  oldest_owed timestamptz, accepted bigint, outside bigint, parked bigint, delayed bigint)
language plpgsql stable as $fn$
declare
  v_tails bigint[] := array(select bellwire.tail_of(l.lane) from bellwire.lane l order by l.lane);
  v_accepted bigint[];
  v_source int;
  v_b record;
  v_c record;
  v_w record;
begin
  for v_b in
    select b.id, b.account, b.uncounted, r.source from bellwire.binding b
      join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision order by r.source, b.id
  loop
    if v_source is distinct from v_b.source then
      v_source := v_b.source;
      v_accepted := array(
        select bellwire.accepted_upto(l.lane, v_b.source, v_tails[l.lane]) from bellwire.lane l order by l.lane);
    end if;
    binding := v_b.id;
    select array_agg(coalesce(e.count, 0) order by n) into ended from generate_series(1, 5) n
      left join bellwire.ended_change e on e.binding = v_b.id and e.state = n;
    select count(*) filter (where r.reason <> 3 and not is_delayed), count(*) filter (where not r.counted),
        count(*) filter (where r.reason = 3), count(*) filter (where is_delayed),
        min(case when is_delayed then r.next_at else r.accepted_at end)
      into retrying, outside, parked, delayed, oldest_owed
      from bellwire.retry r cross join lateral (select r.reason in (5, 6) and r.attempts = 0 as is_delayed) d
      where r.binding = v_b.id and r.reason <> 7;
    dead_letters := (select count(*) from bellwire.dead d where d.binding = v_b.id);
    waiting := parked + delayed;
    accepted := -v_b.uncounted;
    for v_c in
      select a.lane, a.counted_from, a.counted_base, n.mark, n.done, n.account, n.ended from bellwire.binding_lane a
        cross join lateral bellwire.newest_checkpoint(a.lane, v_b.id) n
        where a.binding = v_b.id
    loop
      accepted := accepted + v_accepted[v_c.lane] - v_c.counted_base;
      if v_c.account = v_b.account then
        ended := array(select e + d from unnest(ended, v_c.ended) with ordinality u(e, d, o) order by o);
      end if;
      if greatest(v_c.mark, v_c.counted_from) < v_tails[v_c.lane] then
        select * into v_w from bellwire.waiting(
          v_c.lane, v_b.source, greatest(v_c.mark, v_c.counted_from), v_c.done, v_tails[v_c.lane]);
        waiting := waiting + v_w.o_count;
        oldest_owed := least(oldest_owed, v_w.o_first);
      end if;
    end loop;
    return next;
  end loop;
end $fn$;

-- The same for people, and for a program of before.
create or replace function bellwire.totals()
returns table (binding int, ended bigint[], waiting bigint, retrying bigint, dead_letters bigint,
  oldest_owed timestamptz, accepted bigint, outside bigint) language sql stable
security definer set search_path = pg_catalog, pg_temp as $fn$
  select a.binding, a.ended, a.waiting, a.retrying, a.dead_letters, a.oldest_owed, a.accepted, a.outside
    from bellwire.accounts() a
$fn$;

-- See 0007_views.sql. What is only owed later has no age.
create or replace view bellwire.binding_lag as
  select b.name as binding, s.name as source, r.function, b.active, b.paused_at, b.paused_by, b.paused_reason,
    t.waiting, t.retrying, t.dead_letters, o.oldest_owed, clock_timestamp() - o.oldest_owed as lag, t.accepted, t.outside,
    t.ended[1] as delivered, t.ended[2] as filtered, t.ended[3] as expired, t.ended[4] as dead, t.ended[5] as discarded
  from bellwire.totals() t
  cross join lateral (select case when t.oldest_owed <= clock_timestamp() then t.oldest_owed end as oldest_owed) o
  join bellwire.binding b on b.id = t.binding
  join bellwire.binding_revision r on r.binding = b.id and r.revision = b.revision
  join bellwire.source s on s.id = r.source;
