-- Limits that controllers share: who has how many slots of each; see `Ledger::slots`. The rule is that of
-- `ledger/src/slots.rs`.
--
-- One lock (class: the table `slot`) lets one call at a time in, so that each counts what the one before was granted; it
-- is taken after the fences of lanes by whoever needs both. A call that changes nothing writes nothing.

create table bellwire.slot (
  name       text not null,
  controller uuid not null,
  granted    bigint not null,
  wanted     bigint not null,
  -- Since when it has some, or since when it waits for the first. By the clocks of the controllers, and for turns only.
  since      timestamptz not null,
  primary key (name, controller),
  check (granted > 0 or wanted > 0)
) with (fillfactor = 50);

-- The round of each controller's newest question for slots. One that has lost track of a question begins the next round:
-- then the lost one, should it come late, is refused (BW014), since it says what was true before.
create table bellwire.slot_round (
  controller uuid primary key,
  round      bigint not null
) with (fillfactor = 50);

-- The fair part of a controller, whatever is free; the others are those in the table.
create function bellwire.slots_part(
  p_name text, p_controller uuid, p_granted bigint, p_wanted bigint, p_since timestamptz, p_most bigint, p_turn_ms bigint,
  p_now timestamptz) returns bigint
language plpgsql volatile as $fn$
declare
  v_turn interval := p_turn_ms * interval '1 millisecond';
  v_heads bigint;
  v_left bigint := p_most;
  v_before bigint;
  v_given bigint;
begin
  if p_wanted = 0 then
    return 0;
  end if;
  select count(*) + 1 into v_heads from bellwire.slot s
    where s.name = p_name and s.controller <> p_controller and s.wanted > 0;
  if v_heads > p_most then
    -- One each: first those whose turn is not over, then those that wait, the longest first.
    select count(*) into v_before from bellwire.slot s
      where s.name = p_name and s.controller <> p_controller and s.wanted > 0
        and (case when s.granted = 0 then 1 when s.since + v_turn > p_now then 0 else 2 end, s.since, s.controller)
          < (case when p_granted = 0 then 1 when p_since + v_turn > p_now then 0 else 2 end, p_since, p_controller);
    return case when v_before < p_most then 1 else 0 end;
  end if;
  -- Who wants little gets all of it, the others share what is left over.
  for v_given in select s.wanted from bellwire.slot s
      where s.name = p_name and s.controller <> p_controller and s.wanted > 0
        and (s.wanted, s.controller) < (p_wanted, p_controller)
      order by s.wanted, s.controller loop
    v_left := v_left - least(v_given, v_left / v_heads);
    v_heads := v_heads - 1;
  end loop;
  return least(p_wanted, v_left / v_heads);
end $fn$;

-- Asks for slots of several limits; answers how many the controller has of each and its part, in the order asked. One that
-- is not alive has what it keeps. Refusals: BW014 a later round has begun; the detail says which.
create function bellwire.slots(
  p_controller uuid, p_names text[], p_mosts bigint[], p_kept bigint[], p_wanteds bigint[], p_turn_ms bigint,
  p_now timestamptz, p_round bigint, out o_slots bigint[], out o_parts bigint[])
language plpgsql volatile as $fn$
declare
  v_clock timestamptz;
  v_now timestamptz;
  v_round bigint;
  v_mine record;
  v_free bigint;
  v_lacks boolean;
  v_part bigint;
  v_granted bigint;
  v_since timestamptz;
begin
  perform bellwire.check_isolation();
  perform bellwire.commit_safely();
  -- Who has waited so long has given up by now, and nobody else should wait for it.
  perform set_config('lock_timeout', '1500', true);
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.slot'), 0);
  v_clock := clock_timestamp();
  -- A clock that is ahead must not wait for the others to come that far.
  v_now := least(p_now, v_clock);
  o_slots := p_kept;
  o_parts := array_fill(0::bigint, array[cardinality(p_names)]);
  if not exists (select from bellwire.controller c where c.id = p_controller and c.expires_at > v_clock) then
    return;
  end if;
  select r.round into v_round from bellwire.slot_round r where r.controller = p_controller;
  if p_round < v_round then
    raise exception using errcode = 'BW014', message = 'a later question for slots came first', detail = v_round::text;
  elsif v_round is null or p_round > v_round then
    insert into bellwire.slot_round (controller, round) values (p_controller, p_round)
      on conflict (controller) do update set round = excluded.round;
  end if;
  -- The dead have nothing of these limits, and those of whom nothing is known any more nothing at all.
  delete from bellwire.slot s where not exists (
    select from bellwire.controller c
      where c.id = s.controller and (c.expires_at > v_clock or s.name <> all (p_names)));
  delete from bellwire.slot_round r where not exists (select from bellwire.controller c where c.id = r.controller);
  for i in 1 .. cardinality(p_names) loop
    select s.granted, s.wanted, s.since into v_mine from bellwire.slot s
      where s.name = p_names[i] and s.controller = p_controller;
    select greatest(p_mosts[i] - coalesce(sum(s.granted), 0), 0), coalesce(bool_or(s.wanted > s.granted), false)
      into v_free, v_lacks from bellwire.slot s where s.name = p_names[i] and s.controller <> p_controller;
    v_since := coalesce(v_mine.since, v_now);
    v_part := bellwire.slots_part(p_names[i], p_controller, coalesce(v_mine.granted, 0), p_wanteds[i], v_since, p_mosts[i],
      p_turn_ms, v_now);
    v_granted := greatest(p_kept[i], least(v_free, v_part));
    if (v_granted = 0) <> (coalesce(v_mine.granted, 0) = 0) then
      v_since := v_now;
    end if;
    o_slots[i] := v_granted;
    -- No more than is free: after the limit was lowered, or a lease had ended, everybody goes down until it fits.
    o_parts[i] := case when v_lacks then v_part else greatest(v_part, least(p_kept[i], v_free)) end;
    if v_granted = 0 and p_wanteds[i] = 0 then
      if v_mine.since is not null then
        delete from bellwire.slot s where s.name = p_names[i] and s.controller = p_controller;
      end if;
    elsif v_mine.since is null then
      insert into bellwire.slot (name, controller, granted, wanted, since)
        values (p_names[i], p_controller, v_granted, p_wanteds[i], v_since);
    elsif (v_mine.granted, v_mine.wanted, v_mine.since) <> (v_granted, p_wanteds[i], v_since) then
      update bellwire.slot s set granted = v_granted, wanted = p_wanteds[i], since = v_since
        where s.name = p_names[i] and s.controller = p_controller;
    end if;
  end loop;
end $fn$;

-- Takes a controller out of the cluster and gives back what it owns; see 0005_cluster.sql.
create or replace function bellwire.leave(p_controller uuid) returns void language plpgsql volatile as $fn$
declare
  v_lane smallint;
begin
  perform bellwire.check_isolation();
  for v_lane in select l.lane from bellwire.lane l where l.owner = p_controller order by l.lane loop
    perform bellwire.fence(v_lane);
    update bellwire.lane set owner = null, taken_at = null where lane = v_lane and owner = p_controller;
  end loop;
  perform pg_advisory_xact_lock(bellwire.lock_class('bellwire.slot'), 0);
  delete from bellwire.slot where controller = p_controller;
  delete from bellwire.controller where id = p_controller;
end $fn$;
