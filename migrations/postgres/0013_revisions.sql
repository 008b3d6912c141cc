-- Where a revision of a binding begins: the last place of every lane when it was declared, in the order of the lanes. What
-- lies beyond is judged by it, what lies before by the one before. Null where nobody had written it down.
alter table bellwire.binding_revision add column tails bigint[];

create function bellwire.tails() returns bigint[] language sql volatile as $fn$
  select array(select bellwire.tail_of(l.lane) from bellwire.lane l order by l.lane)
$fn$;

-- See 0005_cluster.sql.
create or replace function bellwire.create_binding(
  p_name text, p_source int, p_function text, p_filter text, p_start text, p_now timestamptz,
  p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint) returns void
language plpgsql volatile as $fn$
declare
  v_id int;
  v_lane smallint;
  v_mark bigint;
begin
  insert into bellwire.binding (name, revision, start, active) values (p_name, 1, p_start, true) returning id into v_id;
  insert into bellwire.binding_revision (binding, revision, source, function, filter, since, tails)
    values (v_id, 1, p_source, p_function, p_filter, p_now, bellwire.tails());
  for v_lane in select l.lane from bellwire.lane l order by l.lane loop
    v_mark := bellwire.start_mark(v_lane, p_kind, p_at, p_at_lane, p_at_seq);
    perform bellwire.open_account(v_id, v_lane, p_source, v_mark);
    insert into bellwire.checkpoint (gen, lane, binding, ver, at, mark, done, account, ended)
      select max(g.gen), v_lane, v_id, 0, p_now, v_mark, '{}', 1, '{0,0,0,0,0}' from bellwire.generation g;
  end loop;
end $fn$;

create or replace function bellwire.declare_binding(
  p_id int, p_active boolean, p_revision int, p_old_source int, p_old_function text, p_old_filter text,
  p_name text, p_source int, p_function text, p_filter text, p_start text, p_now timestamptz,
  p_kind smallint, p_at timestamptz, p_at_lane int, p_at_seq bigint) returns boolean
language plpgsql volatile as $fn$
begin
  if p_id is null then
    perform bellwire.create_binding(p_name, p_source, p_function, p_filter, p_start, p_now,
      p_kind, p_at, p_at_lane, p_at_seq);
    return true;
  end if;
  if (p_old_source, p_old_function, p_old_filter) = (p_source, p_function, p_filter) then
    update bellwire.binding set active = true where id = p_id and not active;
    return found;
  end if;
  insert into bellwire.binding_revision (binding, revision, source, function, filter, since, tails)
    values (p_id, p_revision + 1, p_source, p_function, p_filter, p_now, bellwire.tails());
  update bellwire.binding set active = true, revision = p_revision + 1 where id = p_id;
  if p_old_source <> p_source then
    perform bellwire.move_binding(p_id, p_source);
  end if;
  return true;
end $fn$;
